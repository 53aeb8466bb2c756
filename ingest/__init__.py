"""The line from a device's message to the store: receive, journal, decode, judge, write."""
