/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Moves what the lines of the gpio-sim chip with that label are, one bit each, to `levels`, which has 64. From then on
 * they are there. Does nothing if they are already.
 */
int gpio_levels_lie_at(const char *label, unsigned long *levels);
