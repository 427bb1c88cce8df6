"""The servers that the emulator plays, each as strict as its people are: what it does not know it refuses."""
