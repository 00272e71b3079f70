"""The guard of a service: reads its counters every second, has them judged, and acts."""
