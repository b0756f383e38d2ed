"""The framework's own suites: what it costs by itself, without any driver."""
