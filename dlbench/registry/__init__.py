"""The registry of methods: where they come from, what their files declare, and hashes of their code."""
