"""What can be done without a window: each verb a generator of events over the rooms."""
