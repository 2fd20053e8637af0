// better-sse on Node's own HTTP server, told what to do by lines of JSON on its standard input, as benchmarks/serve.py is.
//
// Its settings are its argument: {"ping": 15, "batch": false}.

import { createServer } from "node:http";
import { createInterface } from "node:readline";

import { createChannel, createEventBuffer, createSession } from "better-sse";

const HELLO = "hello~";
const NAME = "tick";

const settings = JSON.parse(process.argv[2]);
const channel = createChannel();

// What is published is text already.
const serializer = (text) => text;

const server = createServer(async (request, response) => {
    const session = await createSession(request, response, { keepAlive: settings.ping * 1000, serializer });
    channel.register(session);
    // The default for the id is a global that Node 18, which Debian 12 has, lacks.
    session.push(HELLO, "message", "hello");
});

let published = 0;

// Linux gives Python the same clock as time.monotonic().
const now = () => Number(process.hrtime.bigint()) / 1e9;

const text = (number, size) => `{"n":${number},"t":${now().toFixed(6)},"text":"${"x".repeat(size)}"}~`;

const broadcast = (events) => {
    for (const [id, data] of events) {
        channel.broadcast(data, NAME, { eventId: id });
    }
};

const batch = async (events) => {
    const buffer = createEventBuffer({ serializer });
    for (const [id, data] of events) {
        buffer.push(data, NAME, id);
    }
    await Promise.all(channel.activeSessions.map((session) => session.batch(buffer)));
};

const publish = async ({ count, size }) => {
    const events = Array.from({ length: count }, (_, index) => [
        String(published + index),
        text(published + index, size),
    ]);
    published += count;
    await (settings.batch ? batch : broadcast)(events);
    return {};
};

const count = () => ({ result: { tasks: channel.sessionCount } });

const actions = { publish, count };

const answer = (what) => process.stdout.write(JSON.stringify(what) + "\n");

server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, async () => {
    answer({ port: server.address().port });
    for await (const line of createInterface({ input: process.stdin })) {
        const { do: what, ...told } = JSON.parse(line);
        answer(await actions[what](told));
    }
    process.exit();
});
