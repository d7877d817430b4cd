"""Say what a linear recurrence is once; run it any way; get the same answer."""
