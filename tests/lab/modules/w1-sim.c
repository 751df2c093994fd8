// SPDX-License-Identifier: GPL-2.0
/*
 * w1-sim: a 1-Wire master with thermometers, at the level of bytes; only the search is done by the "hardware".
 *
 * A line written to the parameter `device` makes a slave or changes it:
 *	28-000000000001 21500 [absent] [bad-crc] [brown-out]
 * Family and serial number are written as the kernel names a slave; then the temperature in thousandths of a degree.
 * `absent`: it was unplugged. `bad-crc`: its scratchpad comes over the wire damaged. `brown-out`: it has lost its power
 * and come back, and makes no conversion, so that its scratchpad is that of power-on (85 degrees).
 *
 * From the data sheets of Maxim's DS18B20 (19-7487), DS18S20 (19-5474) and DS1822 (19-7488). Byte 6 of a DS18B20's
 * scratchpad is "reserved" there; chips have 0x0c in it at power-on, and 0x10 less the temperature's last four bits
 * after a conversion.
 */
#include <linux/module.h>
#include <linux/string.h>
#include <linux/w1.h>

#define MAX_SLAVES 8
#define SCRATCHPAD 9
#define DS18S20 0x10

enum { MATCH_ROM = 0x55, SKIP_ROM = 0xcc, READ_ROM = 0x33 };
enum { CONVERT = 0x44, READ_SCRATCHPAD = 0xbe, WRITE_SCRATCHPAD = 0x4e };

struct slave {
	u8 rom[8];
	int millis;
	bool absent, bad_crc, brown_out;
	u8 scratchpad[SCRATCHPAD];
};

static struct slave slaves[MAX_SLAVES];
static int count;
static DEFINE_MUTEX(lock);

/* The state of the wire since the last reset. */
static struct {
	enum { ROM_COMMAND, MATCHING, FUNCTION, WRITING, READING } state;
	u8 bytes[8];
	int position;
	/* Bits of those who listen. */
	unsigned int selected;
	const u8 *source;
	int left;
	bool damaged;
} wire;

static u8 crc8(const u8 *bytes, int length)
{
	u8 crc = 0;
	int i;

	while (length--) {
		crc ^= *bytes++;
		for (i = 0; i < 8; i++)
			crc = crc & 1 ? (crc >> 1) ^ 0x8c : crc >> 1;
	}
	return crc;
}

static void seal(struct slave *slave)
{
	slave->scratchpad[SCRATCHPAD - 1] = crc8(slave->scratchpad, SCRATCHPAD - 1);
}

static void power_on(struct slave *slave)
{
	static const u8 ds18b20[] = { 0x50, 0x05, 0x4b, 0x46, 0x7f, 0xff, 0x0c, 0x10 };
	static const u8 ds18s20[] = { 0xaa, 0x00, 0x4b, 0x46, 0xff, 0xff, 0x0c, 0x10 };

	memcpy(slave->scratchpad, slave->rom[0] == DS18S20 ? ds18s20 : ds18b20, SCRATCHPAD - 1);
	seal(slave);
}

static void convert(struct slave *slave)
{
	u8 *scratchpad = slave->scratchpad;
	int sixteenths = slave->millis * 16 / 1000, whole;

	if (slave->brown_out)
		return power_on(slave);
	if (slave->rom[0] == DS18S20) {
		/* T = whole - 1/4 + (16 - remaining) / 16, where the half of a degree is left off. */
		whole = (sixteenths + 3) >> 4;
		scratchpad[0] = whole * 2;
		scratchpad[1] = whole < 0 ? 0xff : 0;
		scratchpad[6] = 16 * whole + 12 - sixteenths;
	} else {
		scratchpad[0] = sixteenths;
		scratchpad[1] = sixteenths >> 8;
		scratchpad[6] = 0x10 - (sixteenths & 0xf);
	}
	seal(slave);
}

static bool listens(int i)
{
	return !slaves[i].absent && wire.selected & BIT(i);
}

/* What is sent next; one slave is to be the only one that listens. */
static void send(bool rom)
{
	int i;

	wire.left = 0;
	for (i = 0; i < count; i++) {
		if (!listens(i))
			continue;
		wire.source = rom ? slaves[i].rom : slaves[i].scratchpad;
		wire.left = rom ? sizeof(slaves[i].rom) : SCRATCHPAD;
		wire.damaged = !rom && slaves[i].bad_crc;
	}
	wire.state = READING;
}

static void command(u8 byte)
{
	int i;

	switch (byte) {
	case CONVERT:
		for (i = 0; i < count; i++)
			if (listens(i))
				convert(&slaves[i]);
		break;
	case READ_SCRATCHPAD:
		send(false);
		break;
	case WRITE_SCRATCHPAD:
		wire.position = 0;
		wire.state = WRITING;
		break;
	/* The others concern the alarm, the EEPROM and the supply, which is external: nothing follows. */
	}
}

static void write_byte(void *data, u8 byte)
{
	int i;

	mutex_lock(&lock);
	switch (wire.state) {
	case ROM_COMMAND:
		wire.position = 0;
		wire.selected = byte == SKIP_ROM || byte == READ_ROM ? ~0 : 0;
		wire.state = byte == MATCH_ROM ? MATCHING : FUNCTION;
		if (byte == READ_ROM)
			send(true);
		break;
	case MATCHING:
		wire.bytes[wire.position++] = byte;
		if (wire.position < sizeof(wire.bytes))
			break;
		for (i = 0; i < count; i++)
			if (!memcmp(wire.bytes, slaves[i].rom, sizeof(wire.bytes)))
				wire.selected = BIT(i);
		wire.state = FUNCTION;
		break;
	case WRITING:
		/* The alarm's two limits, and the configuration. */
		for (i = 0; i < count && wire.position < 3; i++) {
			if (listens(i)) {
				slaves[i].scratchpad[2 + wire.position] = byte;
				seal(&slaves[i]);
			}
		}
		wire.position++;
		break;
	case FUNCTION:
	case READING:
		command(byte);
		break;
	}
	mutex_unlock(&lock);
}

static u8 read_byte(void *data)
{
	u8 byte = 0xff;

	mutex_lock(&lock);
	if (wire.state == READING && wire.left) {
		byte = *wire.source++;
		/* The last one is the checksum. */
		if (--wire.left == 0 && wire.damaged)
			byte ^= 0x55;
	}
	mutex_unlock(&lock);
	return byte;
}

static u8 read_block(void *data, u8 *buffer, int length)
{
	int i;

	for (i = 0; i < length; i++)
		buffer[i] = read_byte(data);
	return length;
}

static void write_block(void *data, const u8 *buffer, int length)
{
	while (length--)
		write_byte(data, *buffer++);
}

static u8 touch_bit(void *data, u8 bit)
{
	/* Nobody holds the wire low: not busy, and not on parasitic power. */
	return 1;
}

static u8 reset_bus(void *data)
{
	u8 nobody = 1;
	int i;

	mutex_lock(&lock);
	memset(&wire, 0, sizeof(wire));
	for (i = 0; i < count; i++)
		if (!slaves[i].absent)
			nobody = 0;
	mutex_unlock(&lock);
	return nobody;
}

static void search(void *data, struct w1_master *master, u8 kind, w1_slave_found_callback found)
{
	u64 present[MAX_SLAVES];
	int i, those = 0;

	mutex_lock(&lock);
	for (i = 0; i < count; i++)
		if (!slaves[i].absent)
			memcpy(&present[those++], slaves[i].rom, sizeof(u64));
	mutex_unlock(&lock);
	/* These talk to the slaves. */
	for (i = 0; i < those; i++)
		found(master, le64_to_cpu(present[i]));
}

static int device_set(const char *text, const struct kernel_param *parameter)
{
	unsigned long long serial;
	unsigned int family;
	int millis, i;
	u8 rom[8];

	if (sscanf(text, "%2x-%12llx %d", &family, &serial, &millis) != 3)
		return -EINVAL;
	rom[0] = family;
	for (i = 1; i < 7; i++)
		rom[i] = serial >> 8 * (i - 1);
	rom[7] = crc8(rom, 7);
	mutex_lock(&lock);
	for (i = 0; i < count; i++)
		if (!memcmp(slaves[i].rom, rom, sizeof(rom)))
			break;
	if (i == MAX_SLAVES) {
		mutex_unlock(&lock);
		return -ENOSPC;
	}
	if (i == count) {
		count++;
		memcpy(slaves[i].rom, rom, sizeof(rom));
		power_on(&slaves[i]);
	}
	slaves[i].millis = millis;
	slaves[i].absent = strstr(text, "absent");
	slaves[i].bad_crc = strstr(text, "bad-crc");
	slaves[i].brown_out = strstr(text, "brown-out");
	mutex_unlock(&lock);
	return 0;
}

static const struct kernel_param_ops device_operations = { .set = device_set };
module_param_cb(device, &device_operations, NULL, 0200);
MODULE_PARM_DESC(device, "28-000000000001 21500 [absent] [bad-crc] [brown-out]");

static struct w1_bus_master master = {
	.reset_bus = reset_bus,
	.read_byte = read_byte,
	.write_byte = write_byte,
	.read_block = read_block,
	.write_block = write_block,
	.touch_bit = touch_bit,
	.search = search,
};

static int __init w1_sim_init(void)
{
	return w1_add_master_device(&master);
}

static void __exit w1_sim_exit(void)
{
	w1_remove_master_device(&master);
}

module_init(w1_sim_init);
module_exit(w1_sim_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a 1-Wire bus with simulated thermometers");
