"""The command groups of `aem`, one file per group: parse, call one function, render.

Modules here import nothing heavy at the top (typer and the standard library only), so that `aem --help` stays fast;
whatever a command needs is imported inside it.
"""
