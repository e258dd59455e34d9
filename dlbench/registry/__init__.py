"""What is plugged in: methods, what their files say, and hashes of their code."""
