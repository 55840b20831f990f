"""The page on which a person reviews masks: its server, on this computer only, and a page for places without one."""
