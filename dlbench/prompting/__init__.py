"""From documents to token ids: chat templates, tokenising, batches, teacher forcing."""
