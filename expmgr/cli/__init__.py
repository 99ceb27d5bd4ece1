"""The commands: parse, call one function, show. One file a group of commands."""
