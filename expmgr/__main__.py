"""`python -m expmgr` is `expmgr`."""

from expmgr.cli.main import entry

if __name__ == "__main__":
    entry()
