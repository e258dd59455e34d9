"""From documents to token ids: chat template, tokenising, batches, teacher forcing."""
