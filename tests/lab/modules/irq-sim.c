// SPDX-License-Identifier: GPL-2.0
/* The kernel's irq_sim.c, built outside of it: the one function that is not exported has another way. */
#include <linux/irq.h>
#include <linux/irqdesc.h>

#define irq_to_desc(number) irq_data_to_desc(irq_get_irq_data(number))

#include "irq_sim.c"
