"""What people import: expmgr.open, fit, save, restore."""
