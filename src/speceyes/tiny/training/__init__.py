"""Training of the bundled models, and what it needs; nothing else imports it."""
