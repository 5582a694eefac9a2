"""Running one net in several frameworks, and comparing what comes out."""
