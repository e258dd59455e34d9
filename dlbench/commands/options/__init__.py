"""What several commands do with their options; importing these modules is fast."""
