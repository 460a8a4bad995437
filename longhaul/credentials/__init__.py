"""What users' tools sign in with: kept encrypted, handed to tools by name, shown to nobody."""
