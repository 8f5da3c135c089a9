"""Small models trained from scratch in seconds: the tasks on which every knob's effect on quality can be measured."""
