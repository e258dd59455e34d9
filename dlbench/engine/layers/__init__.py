"""Around the layers of a stock model: gates, sublayers, call arguments, rotary tables."""
