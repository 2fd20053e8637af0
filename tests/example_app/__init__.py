"""The example app: its endpoints by the test kit, and its page in a real browser."""
