"""Features of frozen encoders: extracted, pooled, stored."""
