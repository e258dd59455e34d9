"""The nano suite: four generated English tasks and the small model trained on them."""
