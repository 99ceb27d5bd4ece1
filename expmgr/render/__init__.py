"""Plain data as text, Markdown, JUnit and pictures. Decides nothing."""
