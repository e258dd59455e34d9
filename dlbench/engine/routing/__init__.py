"""One method on one forward: what it sees, what it decides, and checks of both."""
