"""Renders data as text, Markdown, JSON, JUnit XML and pictures. Decides nothing."""
