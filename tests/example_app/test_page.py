"""The page in a real browser: each panel, and what breaks it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.broker.redis_server import running as running_redis
from tests.example_app.board import PATIENCE, Board, serving
from tests.servers.processes import Program

OpenBoard = Callable[..., Board]


def is_complete(board: Board) -> None:
    """The page has counted neither a gap nor an event twice."""
    assert (board.count("gaps"), board.count("doubled")) == (0, 0)


def test_the_clock_shows_ticks_pings_and_its_state(board: Board) -> None:
    """Time passes, and pings fill the silence."""
    board.shows("#clock-time", re.compile(r"\d\d:\d\d:\d\d"))
    board.hears_more()
    board.shows("#clock-pings", re.compile("[1-9]"))
    board.shows(".clock .state", "live")
    is_complete(board)


def test_no_tick_is_early(board: Board) -> None:
    """A tick that comes a moment before its second is shown as on time."""
    tick = 'retry: 60000\nevent: tick\ndata: {"second": 1, "late": -0.001}\n\n'
    board.page.route("**/clock?*", lambda route: route.fulfill(body=tick, content_type="text/event-stream"))
    board.page.reload()
    board.shows("#clock-ticks", "1")
    board.shows("#clock-delay", "0 ms")


def test_two_tabs_chat_and_see_each_other(board: Board, open_board: OpenBoard) -> None:
    """What one tab says the other shows, and a third gets the history; text is never markup."""
    other = open_board()
    for tab, name in ((board, "ann"), (other, "bob")):
        tab.page.fill("#name", name)
        tab.page.keyboard.press("Enter")
        tab.page.fill("#text", "")
    board.shows("#people", "2 here: ann, bob")
    board.says("<img src=x onerror=alert(1)> & <b>hello</b>")
    expect(other.message("<img src=x onerror=alert(1)> & <b>hello</b>")).to_be_visible(timeout=PATIENCE)
    assert other.find("#messages img, #messages b").count() == 0
    other.says("hello, ann")
    expect(board.message("hello, ann")).to_be_visible(timeout=PATIENCE)
    third = open_board()
    expect(third.message("hello, ann")).to_be_visible(timeout=PATIENCE)
    third.press("[data-room=ideas]")
    third.is_live()
    expect(third.message("hello, ann")).to_have_count(0, timeout=PATIENCE)
    board.shows("#people", "2 here: ann, bob")
    for tab in (board, other, third):
        is_complete(tab)


def test_a_job_advances_in_every_tab_and_can_be_cancelled(board: Board, open_board: OpenBoard) -> None:
    """Progress comes live, cancelling stops it, and both tabs tell the same."""
    other = open_board()
    board.press("#job-done")
    name = board.find(".job[data-state=running]").get_attribute("data-job")
    row = f'.job[data-job="{name}"]'
    expect(other.find(f"{row} progress").first).to_have_js_property("value", 100, timeout=PATIENCE)
    other.press(f"{row} button")
    for tab in (board, other):
        tab.shows(f"{row} .outcome", "cancelled")
        is_complete(tab)


def test_a_job_and_a_stream_that_fail_show_their_error_events(board: Board) -> None:
    """The job's problem tells why; the stream's, which is redacted, tells where to look."""
    board.press("#job-failed")
    board.press("#stream-fails")
    board.shows('[data-job="fails-1"] .outcome', "failed")
    board.shows('[data-job="fails-1"] .error', re.compile("connection_id"))
    board.shows(".job[data-state=failed]:not([data-job^=fails]) .error", re.compile("cannot read"))


def test_an_answer_streams_intact_and_stops_when_told(board: Board) -> None:
    """Every leading space and line break is there; Stop stops the server's generator too."""
    board.press("#ask-button")
    board.shows("#verdict", re.compile(r"^(\d+) of \1 characters, .*: intact\.$"))
    text = board.find("#answer").evaluate("(box) => box.textContent")
    assert "\n\n    class Clock(SSEEndpoint):\n        ping_interval = 15.0\n\n        async def" in text
    assert "\n\t* and a tab before this.\n" in text
    board.press("#ask-button")
    board.shows("#answer", re.compile("You asked"))
    board.press("#stop")
    board.shows("#verdict", re.compile("^Stopped"))
    board.shows("#answer-state", "stopped")
    board.shows("#ends", re.compile(r"client_gone\s*Answer"))
    is_complete(board)


def test_a_late_joiner_sees_the_metrics_so_far_at_once(board: Board, open_board: OpenBoard) -> None:
    """The chart of a new tab begins with what was before it, and goes on."""
    samples = "(least) => Number(document.getElementById('charts').dataset.samples) >= least"
    board.page.wait_for_function(samples, arg=4, timeout=PATIENCE)
    late = open_board()
    late.page.wait_for_function(samples, arg=4, timeout=PATIENCE)
    assert "M" in (late.find(".chart.memory .line").first.get_attribute("d") or "")
    late.shows(".chart.memory strong", re.compile(r"\d+\.\d MB"))
    is_complete(late)


def test_the_inspector_lists_this_pages_streams_and_drops_them(board: Board) -> None:
    """A dropped stream comes back by itself with nothing lost, and its end is told."""
    board.is_inspected()
    board.press("[data-chaos=drop]")
    board.reaches("reconnects", 1)
    board.hears_more()
    board.shows("#ends", re.compile("closed"))
    board.shows("#log", re.compile("stream.closed"))
    is_complete(board)
    assert board.count("resets") == 0


def test_the_ends_and_the_log_are_in_the_same_order(board: Board) -> None:
    """Both have the newest below, and stay at their end while they grow."""
    board.find(".ends").evaluate("(box) => { box.style.height = '3rem'; box.scrollTop = box.scrollHeight; }")
    board.press("#stream-fails")
    expect(board.find("#ends li").last).to_contain_text("Fails", timeout=PATIENCE)
    board.is_inspected()
    board.press("[data-chaos=drop]")
    expect(board.find("#ends li").last).to_contain_text("closed", timeout=PATIENCE)
    board.find(".split").scroll_into_view_if_needed()
    expect(board.find("#ends li").last).to_be_in_viewport()
    expect(board.find("#log p").last).to_contain_text("Live", timeout=PATIENCE)
    expect(board.find("#log p").last).to_be_in_viewport()


def test_a_stalled_page_catches_up_when_it_is_released(board: Board, open_board: OpenBoard) -> None:
    """While it is stalled nothing comes; released, it has it all, the flood in between included."""
    board.is_inspected()
    other = open_board()
    # On a busy machine this may take longer than the server waits; then the page comes back and resumes.
    with board.outage():
        board.press("[data-chaos=stall]")
        expect(other.find("#streams tr.stalled")).to_have_count(1, timeout=PATIENCE)
        board.shows("[data-chaos=stall]", "Release the live stream")
        other.press("#flood")
        other.shows("#flooded", "2,000 of 2,000 arrived")
        board.press("[data-chaos=stall]")
        board.shows("#flooded", "2,000 of 2,000 arrived")
    board.hears_more()
    is_complete(board)


def test_a_stalled_stream_is_shown_and_released_wherever_it_is_listed(board: Board) -> None:
    """The page hears no report of its own stall, and yet its row and the button above say the same at once."""
    board.is_inspected()
    row = board.find("#streams tr[data-endpoint=Live]").filter(has_text="this page")
    above, beside = board.find("[data-chaos=stall]"), row.locator("button").first
    board.shows("[data-chaos=drop]", "Drop the live stream")
    # On a busy machine this may take longer than the server waits; then the page comes back and resumes.
    with board.outage():
        for stall, release in ((above, beside), (beside, above)):
            expect(above).to_have_text("Stall the live stream", timeout=PATIENCE)
            expect(beside).to_have_text("Stall", timeout=PATIENCE)
            stall.click()
            expect(row.locator(".badge")).to_have_text("this page · stalled", timeout=PATIENCE)
            expect(above).to_have_text("Release the live stream")
            expect(beside).to_have_text("Release")
            release.click()
            expect(row.locator(".badge")).to_have_text("this page", timeout=PATIENCE)
    board.hears_more()
    is_complete(board)


def test_a_stalled_page_that_nobody_releases_is_given_up_and_resumes(board: Board) -> None:
    """The server ends the stream by its send timeout; the page comes back and has missed nothing."""
    board.is_inspected()
    with board.outage():
        board.press("[data-chaos=stall]")
        board.reaches("reconnects", 1)
    board.shows("#ends", re.compile("send_timeout"))
    board.hears_more()
    is_complete(board)


def test_a_flood_that_fails_is_over(board: Board) -> None:
    """The button's side falls silent, and the panel says why."""
    board.page.route("**/chaos/flood", lambda route: route.abort("connectionrefused"))
    with board.outage():
        board.press("#flood")
        board.shows("#chaos-problem", re.compile("cannot be reached"))
    board.shows("#flooded", "")


def test_what_was_said_of_an_outage_goes_when_the_page_is_live_again(board: Board) -> None:
    """A stream that comes back proves that the server is there; what it has refused stays refused."""
    board.is_inspected()
    board.page.route("**/say", lambda route: route.fulfill(status=503, body="Not now."))
    board.page.route("**/job", lambda route: route.abort("connectionrefused"))
    with board.refusals(), board.outage():
        board.page.fill("#text", "anybody?")
        board.press("#say button")
        board.shows("#say-problem", "Not sent. Not now.")
        board.press("#job-done")
        board.shows("#job-problem", re.compile("cannot be reached"))
    board.press("[data-chaos=drop]")
    board.reaches("reconnects", 1)
    board.shows("#job-problem", "")
    board.shows("#say-problem", "Not sent. Not now.")


def test_who_waits_for_a_connection_is_told_why(board: Board, open_board: OpenBoard) -> None:
    """Three tabs' streams leave no connection for a request: each panel says so, until another tab is closed."""
    places = ("#say-problem", "#job-problem", "#chaos-problem", "#verdict", "#source-problem")
    open_board()
    third = open_board()
    third.page.fill("#text", "through at last")
    for button in ("#say button", "#job-done", "#flood", "#ask-button", ".clock a.source"):
        third.press(button)
    for place in places:
        third.shows(place, re.compile("No answer yet.*close another tab"))
    board.page.close()
    third.shows("#source-text", re.compile("class Clock"))
    expect(third.message("through at last")).to_be_visible(timeout=PATIENCE)
    third.shows("#flooded", "2,000 of 2,000 arrived")
    third.shows("#verdict", re.compile("intact"))
    for place in places:
        expect(third.find(place)).not_to_contain_text("No answer", timeout=PATIENCE)


def test_a_slow_tab_gets_a_flood_whole(board: Board, open_board: OpenBoard) -> None:
    """A tab whose scripts stand still while others flood it has every event afterwards."""
    slow = open_board()
    slow.page.evaluate("setTimeout(() => { const end = Date.now() + 3000; while (Date.now() < end); })")
    board.press("#flood")
    for tab in (board, slow):
        tab.shows("#flooded", "2,000 of 2,000 arrived")
        is_complete(tab)


def test_draining_the_server_ends_every_stream_and_all_come_back(board: Board) -> None:
    """Each stream says farewell, and the page is live again without a gap."""
    board.is_inspected()
    board.press("[data-chaos=drain]")
    board.reaches("reconnects", 2)
    board.shows("#ends", re.compile("draining"))
    board.hears_more()
    is_complete(board)
    assert board.count("resets") == 0


def test_a_tab_that_was_offline_gets_what_it_missed(chromium: Browser, board: Board, open_board: OpenBoard) -> None:
    """Back online, the tab resumes: messages that were missed come once, in order."""
    elsewhere = chromium.new_context(bypass_csp=True)
    other = open_board(context=elsewhere)
    with board.outage():
        board.page.context.set_offline(True)
        expect(board.find('.chat .state[data-state="reconnecting"]')).to_be_visible(timeout=PATIENCE)
        for text in ("offline one", "offline two"):
            other.says(text)
        board.page.context.set_offline(False)
        expect(board.message("offline two")).to_be_visible(timeout=PATIENCE)
    assert board.find(".message p").filter(has_text="offline").all_inner_texts() == ["offline one", "offline two"]
    board.hears_more()
    board.shows("#clock-replayed", re.compile("[0-9]"))
    is_complete(board)
    assert board.count("resets") == 0
    elsewhere.close()


def test_a_tab_in_the_background_lets_go_and_resumes(board: Board) -> None:
    """A hidden page gives its connections back after a while, and goes on by id when it is seen again."""
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    board.page.clock.install()
    board.page.evaluate(f"{hide} document.dispatchEvent(new Event('visibilitychange')); }}", True)
    board.page.clock.fast_forward(31_000)
    board.shows(".chat .state", "asleep")
    board.page.evaluate(f"{hide} document.dispatchEvent(new Event('visibilitychange')); }}", False)
    board.page.clock.resume()
    board.hears_more()
    is_complete(board)
    assert board.count("resets") == 0


def test_the_page_comes_back_after_a_restart(open_board: OpenBoard, tmp_path: Path) -> None:
    """Ctrl-C and a new start: every panel is live again; the memory broker's loss is told once, nothing is doubled."""
    with serving(tmp_path) as first:
        board = open_board(first.port)
        board.says("before the restart")
        board.press("#job-done")
        board.shows(".job .outcome", "running")
        board.press("#ask-button")
        board.shows("#answer", re.compile("You asked"))
        with board.outage():
            first.stop(signal.SIGINT)
            expect(board.find('.chat .state[data-state="reconnecting"]')).to_be_visible(timeout=PATIENCE)
            with serving(tmp_path, port=first.port):
                board.reaches("resets", 1)
                board.hears_more()
                board.shows("#verdict", re.compile("resumed .*: intact"))
                board.says("after the restart")
                board.shows(".job .outcome", re.compile("cancelled|lost with the server"))
                expect(board.message("before the restart")).to_be_visible()
                is_complete(board)
                assert board.count("resets") == 1


def test_what_is_stale_says_so_and_cannot_be_pressed(open_board: OpenBoard, tmp_path: Path) -> None:
    """While the server is away figures pale and tell their age, and buttons do nothing and say so, until it is back."""
    orders = ":is(.rooms, .jobs, .inspector) button"
    with serving(tmp_path) as first:
        board = open_board(first.port)
        board.is_inspected()
        board.press("#job-done")
        board.shows(".job .outcome", "running")
        with board.outage():
            first.stop(signal.SIGKILL)
            age = re.compile(r"^as of \d\d:\d\d:\d\d$")
            expect(board.find(".panel .as-of")).to_have_text([age] * 5, timeout=PATIENCE)
            pale = board.find(".facts dt").first.evaluate("(figure) => getComputedStyle(figure).color")
            for figure in ("#clock-time", "#clock-delay", ".chart strong", "#streams td", ".job .outcome"):
                expect(board.find(figure).first).to_have_css("color", pale, timeout=PATIENCE)
            assert board.find(orders).count() > 12
            expect(board.find(f'{orders}:not([aria-disabled="true"])')).to_have_count(0)
            board.find("#flood").focus()
            board.page.keyboard.press("Enter")
            board.find("#streams button").first.dispatch_event("click")
            board.page.fill("#text", "anybody?")
            board.page.keyboard.press("Enter")
            board.shows("#say-problem", re.compile("Not sent. The server cannot be reached"))
            for place in ("#flooded", "#chaos-problem"):
                board.shows(place, "")
            with serving(tmp_path, port=first.port):
                board.is_live()
                board.shows("#say-problem", "")
                expect(board.find(".as-of").filter(has_text="as of")).to_have_count(0, timeout=PATIENCE)
                expect(board.find(f'{orders}[aria-disabled="true"]')).to_have_count(0, timeout=PATIENCE)
                expect(board.find("#clock-time")).not_to_have_css("color", pale, timeout=PATIENCE)
                board.press("#flood")
                board.shows("#flooded", "2,000 of 2,000 arrived")


def test_with_redis_a_restart_loses_nothing(open_board: OpenBoard, tmp_path: Path) -> None:
    """What another worker published while this one was away is there after its restart, without a reset."""
    with (
        running_redis(tmp_path) as redis,
        serving(tmp_path, broker=redis.url) as other,
        serving(tmp_path, broker=redis.url) as first,
    ):
        board, elsewhere = open_board(first.port), open_board(other.port)
        board.says("before the restart")
        expect(elsewhere.message("before the restart")).to_be_visible(timeout=PATIENCE)
        with board.outage():
            first.stop(signal.SIGINT)
            elsewhere.says("while it was away")
            with serving(tmp_path, port=first.port, broker=redis.url):
                expect(board.message("while it was away")).to_be_visible(timeout=PATIENCE)
                board.hears_more()
                for tab in (board, elsewhere):
                    is_complete(tab)
                    assert tab.count("resets") == 0


def test_the_board_outlives_its_redis(open_board: OpenBoard, tmp_path: Path) -> None:
    """While Redis is away the clock ticks on and a message is refused kindly; after its loss one reset is told."""
    with running_redis(tmp_path) as redis, serving(tmp_path, broker=redis.url) as server:
        board = open_board(server.port)
        redis.kill()
        board.shows("#log", re.compile("stream.opened"))
        with board.refusals():
            board.page.fill("#text", "anybody?")
            board.press("#say button")
            board.shows("#say-problem", re.compile("Not sent"))
        ticks = board.find("#clock-ticks").inner_text()
        expect(board.find("#clock-ticks")).not_to_have_text(ticks, timeout=PATIENCE)
        redis.start()
        board.reaches("resets", 1)
        board.hears_more()
        board.press("#say button")
        expect(board.message("anybody?")).to_be_visible(timeout=PATIENCE)
        is_complete(board)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_is_the_readers_choice(board: Board, context: BrowserContext, theme: str) -> None:
    """A chosen theme holds whatever the system prefers, also after a reload."""
    board.page.select_option("#theme", theme)
    board.page.reload()
    board.is_live()
    assert board.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == theme


def test_the_page_can_be_used_from_the_keyboard(board: Board) -> None:
    """Every control is reached by Tab, and a panel's source opens and closes without a mouse."""
    board.find("#text").focus()
    board.page.keyboard.type("typed")
    board.page.keyboard.press("Enter")
    expect(board.message("typed")).to_be_visible(timeout=PATIENCE)
    board.find("a.source").first.focus()
    board.page.keyboard.press("Enter")
    board.shows("#source-text", re.compile("class Clock"))
    board.page.keyboard.press("Escape")
    expect(board.find("#source")).to_be_hidden()


def test_a_page_without_scripts_names_no_address_but_its_own(chromium: Browser, server: Program) -> None:
    """What it says to try holds on every host and port."""
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    said = page.locator("noscript").inner_text()
    context.close()
    assert "curl -N" in said
    assert not re.search(r"localhost|://|:\d", said)


def test_the_page_keeps_its_own_policy(chromium: Browser, server: Program) -> None:
    """Under its content security policy the page runs without a violation, which would be a console error."""
    context = chromium.new_context()
    board = Board.open(context, server.port)
    board.press("#stream-fails")
    board.shows(".job .error", re.compile("connection_id"))
    context.close()
    assert board.problems == []
