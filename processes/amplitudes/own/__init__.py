"""Matrix elements of one's own: functions of momenta, and shared libraries with the interface UMAMI."""
