"""For people and for the services that dispatch: typed client, command line, one-machine stack."""
