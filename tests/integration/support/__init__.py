"""What the integration tests are made of: the daemon, partners, a name server, senders."""
