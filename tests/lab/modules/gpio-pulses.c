// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's gpio-sim.c, a generator of pulses on its lines, and a way for registers to show their levels.
 *
 * Written to the parameter `pulses`, "GPIO17 1000 500" lets the line of that name go up and down a thousand times, 500
 * times a second, evenly. Read, it gives how many of how many pulses there were; each is counted once the line is down
 * again; and by how many microseconds the latest edge was late. Where the machine is late, a pulse comes late, and none is
 * left out. Those behind it make up for that, unless it was held up for so long that they would be too many at once: of
 * more than a thousand edges that nobody takes the kernel drops some.
 */
#include "gpio-sim.c"

#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <uapi/linux/sched/types.h>

#include "gpio-levels.h"

/* A line goes no faster than this, in Hz. */
#define MAX_RATE 100000
/* What is later than this is not made up for. */
#define HELD_UP_NS (NSEC_PER_SEC / 10)

static struct pulses {
	struct gpio_sim_chip *chip;
	unsigned int offset;
	unsigned int count, done;
	u64 half_period_ns;
	s64 latest_us;
	bool running;
} pulses;

static int generate(void *data)
{
	ktime_t next = ktime_get(), late;
	unsigned int i;

	for (i = 0; i < 2 * pulses.count; i++) {
		next = ktime_add_ns(next, pulses.half_period_ns);
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_hrtimeout(&next, HRTIMER_MODE_ABS);
		gpio_sim_apply_pull(pulses.chip, pulses.offset, i % 2 == 0);
		late = ktime_sub(ktime_get(), next);
		WRITE_ONCE(pulses.latest_us, max(pulses.latest_us, ktime_to_us(late)));
		if (ktime_to_ns(late) > HELD_UP_NS)
			next = ktime_add(next, late);
		if (i % 2)
			WRITE_ONCE(pulses.done, pulses.done + 1);
	}
	smp_store_release(&pulses.running, false);
	return 0;
}

/* Finds the line of a name on a chip of gpio-sim. */
static int match_line(struct gpio_chip *gc, void *name)
{
	unsigned int i;

	for (i = 0; gc->get == gpio_sim_get && i < gc->ngpio; i++) {
		const char *line = gc->gpiodev->descs[i].name;

		if (line && !strcmp(line, name)) {
			pulses.chip = gpiochip_get_data(gc);
			pulses.offset = i;
			return 1;
		}
	}
	return 0;
}

static int pulses_set(const char *text, const struct kernel_param *parameter)
{
	struct task_struct *thread;
	unsigned int count, rate;
	char name[32];

	if (sscanf(text, "%31s %u %u", name, &count, &rate) != 3 || !rate || rate > MAX_RATE || count > INT_MAX / 2)
		return -EINVAL;
	if (smp_load_acquire(&pulses.running))
		return -EBUSY;
	if (!gpiochip_find(name, match_line))
		return -ENODEV;
	pulses.count = count;
	pulses.done = 0;
	pulses.latest_us = 0;
	pulses.half_period_ns = NSEC_PER_SEC / 2 / rate;
	pulses.running = true;
	thread = kthread_create(generate, NULL, "pulses");
	if (IS_ERR(thread)) {
		pulses.running = false;
		return PTR_ERR(thread);
	}
	/* Before programs, but behind the threads that take its edges. */
	sched_set_fifo_low(thread);
	wake_up_process(thread);
	return 0;
}

static int pulses_get(char *buffer, const struct kernel_param *parameter)
{
	return sysfs_emit(buffer, "%u of %u, late by %lld\n", READ_ONCE(pulses.done), pulses.count,
			  READ_ONCE(pulses.latest_us));
}

static const struct kernel_param_ops pulses_operations = { .set = pulses_set, .get = pulses_get };
module_param_cb(pulses, &pulses_operations, NULL, 0644);
MODULE_PARM_DESC(pulses, "LINE COUNT HERTZ");

static int match_label(struct gpio_chip *gc, void *label)
{
	return gc->get == gpio_sim_get && !strcmp(gc->label, label);
}

int gpio_levels_lie_at(const char *label, unsigned long *levels)
{
	struct gpio_chip *gc = gpiochip_find((void *)label, match_label);
	struct gpio_sim_chip *chip;

	if (!gc)
		return -ENODEV;
	if (gc->ngpio > 64)
		return -EINVAL;
	chip = gpiochip_get_data(gc);
	mutex_lock(&chip->lock);
	if (chip->value_map != levels) {
		bitmap_copy(levels, chip->value_map, gc->ngpio);
		chip->value_map = levels;
	}
	mutex_unlock(&chip->lock);
	return 0;
}
EXPORT_SYMBOL_GPL(gpio_levels_lie_at);
