// SPDX-License-Identifier: GPL-2.0
/* simbus: I2C adapters. An address at which nobody is, is EREMOTEIO, as with a Raspberry Pi's i2c-bcm2835. */
#include <linux/i2c.h>
#include <linux/module.h>

#include "door.h"

#define MAX_BUSES 4

static int i2c[MAX_BUSES] = { 1 };
static int buses = 1;
module_param_array(i2c, int, &buses, 0444);
MODULE_PARM_DESC(i2c, "the numbers of the I2C adapters");

static struct bus {
	struct i2c_adapter adapter;
	struct door door;
} all[MAX_BUSES];

static int transfer(struct i2c_adapter *adapter, struct i2c_msg *messages, int count)
{
	struct bus *bus = container_of(adapter, struct bus, adapter);
	struct door_part *parts;
	int i, ret;

	parts = kcalloc(count, sizeof(*parts), GFP_KERNEL);
	if (!parts)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		/* Of the flags, a plain read is all that a Raspberry Pi's controller can do. */
		if (messages[i].flags & ~(I2C_M_RD | I2C_M_DMA_SAFE)) {
			kfree(parts);
			return -EOPNOTSUPP;
		}
		parts[i] = (struct door_part) {
			.address = messages[i].addr,
			.flags = messages[i].flags & I2C_M_RD ? DOOR_READS : DOOR_WRITES,
			.length = messages[i].len,
			.out = messages[i].buf,
			.in = messages[i].buf,
		};
	}
	ret = door_transfer(&bus->door, parts, count);
	kfree(parts);
	return ret ? ret : count;
}

static u32 functionality(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C | I2C_FUNC_SMBUS_EMUL;
}

static const struct i2c_algorithm algorithm = {
	.master_xfer = transfer,
	.functionality = functionality,
};

static void remove(int count)
{
	while (count--) {
		i2c_del_adapter(&all[count].adapter);
		door_remove(&all[count].door);
	}
}

int simbus_i2c_init(void)
{
	int i, ret;

	for (i = 0; i < buses; i++) {
		struct i2c_adapter *adapter = &all[i].adapter;

		ret = door_add(&all[i].door, "i2c", i2c[i]);
		if (ret)
			break;
		adapter->owner = THIS_MODULE;
		adapter->algo = &algorithm;
		adapter->nr = i2c[i];
		/* A transfer that ended with EAGAIN is not tried again: the tests are to see it. */
		adapter->retries = 0;
		snprintf(adapter->name, sizeof(adapter->name), "simbus i2c%d", i2c[i]);
		ret = i2c_add_numbered_adapter(adapter);
		if (ret) {
			door_remove(&all[i].door);
			break;
		}
	}
	if (i == buses)
		return 0;
	remove(i);
	return ret;
}

void simbus_i2c_exit(void)
{
	remove(buses);
}
