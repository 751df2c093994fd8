/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The door through which a bus hands its transfers to a program.
 *
 * read() of /dev/simbus-NAME gives one transfer:
 *	u32 number, u32 parts; then for each part: u16 address, u16 flags, u32 length, and the bytes if it writes.
 * write() answers it:
 *	u32 number, s32 status (0 or a negative errno); if 0, then the bytes of all parts that read, one after the other.
 * An answer that comes too late, or that does not fit, is ESTALE or EINVAL to the program. All in the machine's order.
 */
#ifndef SIMBUS_DOOR_H
#define SIMBUS_DOOR_H

#include <linux/completion.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/wait.h>

enum { DOOR_READS = 1, DOOR_WRITES = 2 };

/* Bytes of all parts of a transfer, and how many parts. */
#define DOOR_MAX_BYTES 16384
#define DOOR_MAX_PARTS 64

/* `in` is filled by parts that read, `out` is what is written; both have `length` bytes. */
struct door_part {
	u16 address;
	u16 flags;
	u32 length;
	const u8 *out;
	u8 *in;
};

struct door {
	struct miscdevice device;
	char name[32];
	/* Guards what follows. The cores of I2C and SPI see to it that a bus has one transfer at a time. */
	struct mutex lock;
	wait_queue_head_t wake;
	struct completion answered;
	int open;
	u32 number;
	bool waiting;	/* for the program to take the transfer */
	bool pending;	/* for the program to answer it */
	int status;
	const struct door_part *parts;
	int count;
};

int door_add(struct door *door, const char *kind, int number);
void door_remove(struct door *door);
/* 0, or a negative errno: EREMOTEIO without a program, ETIMEDOUT if it does not answer within the bus's time. */
int door_transfer(struct door *door, const struct door_part *parts, int count);

int simbus_i2c_init(void);
void simbus_i2c_exit(void);
int simbus_spi_init(void);
void simbus_spi_exit(void);

#endif
