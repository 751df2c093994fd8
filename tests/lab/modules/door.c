// SPDX-License-Identifier: GPL-2.0
/* simbus: buses whose chips are a program's; this file is what they share. See door.h. */
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "door.h"

static unsigned int timeout_ms = 60000;
module_param(timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "how long a transfer may take before the bus gives up: i2c-bcm2835 has 1 s, but a busy host keeps chips from answering");

static struct door *door_of(struct file *file)
{
	/* misc_open() leaves the device here. */
	return container_of(file->private_data, struct door, device);
}

static int door_open(struct inode *inode, struct file *file)
{
	struct door *door = door_of(file);
	int busy;

	mutex_lock(&door->lock);
	busy = door->open;
	door->open = 1;
	mutex_unlock(&door->lock);
	return busy ? -EBUSY : 0;
}

static int door_release(struct inode *inode, struct file *file)
{
	struct door *door = door_of(file);

	mutex_lock(&door->lock);
	door->open = 0;
	if (door->pending) {
		door->pending = door->waiting = false;
		door->status = -EREMOTEIO;
		complete(&door->answered);
	}
	mutex_unlock(&door->lock);
	return 0;
}

/* Appends to the reader's buffer. */
static int put(char __user **to, size_t *room, const void *data, size_t size)
{
	if (size > *room)
		return -EMSGSIZE;
	if (copy_to_user(*to, data, size))
		return -EFAULT;
	*to += size;
	*room -= size;
	return 0;
}

static int put_transfer(struct door *door, char __user *to, size_t *room)
{
	u32 head[2] = { door->number, door->count };
	int i, ret = put(&to, room, head, sizeof(head));

	for (i = 0; i < door->count && !ret; i++) {
		const struct door_part *part = &door->parts[i];
		struct { u16 address, flags; u32 length; } about = { part->address, part->flags, part->length };

		ret = put(&to, room, &about, sizeof(about));
		if (!ret && part->flags & DOOR_WRITES)
			ret = put(&to, room, part->out, part->length);
	}
	return ret;
}

static ssize_t door_read(struct file *file, char __user *to, size_t size, loff_t *position)
{
	struct door *door = door_of(file);
	size_t room = size;
	int ret;

	for (;;) {
		mutex_lock(&door->lock);
		if (door->waiting)
			break;
		mutex_unlock(&door->lock);
		if (wait_event_interruptible(door->wake, READ_ONCE(door->waiting)))
			return -ERESTARTSYS;
	}
	ret = put_transfer(door, to, &room);
	if (!ret)
		door->waiting = false;
	mutex_unlock(&door->lock);
	return ret ? ret : size - room;
}

static int take_answer(struct door *door, const char __user *from, size_t size)
{
	struct { u32 number; s32 status; } head;
	size_t expected = 0;
	int i;

	if (size < sizeof(head) || copy_from_user(&head, from, sizeof(head)))
		return -EINVAL;
	if (!door->pending || head.number != door->number)
		return -ESTALE;
	from += sizeof(head);
	size -= sizeof(head);
	if (head.status > 0 || head.status < -MAX_ERRNO)
		return -EINVAL;
	for (i = 0; i < door->count; i++)
		expected += door->parts[i].flags & DOOR_READS ? door->parts[i].length : 0;
	if (size != (head.status ? 0 : expected))
		return -EINVAL;
	for (i = 0; i < door->count && !head.status; i++) {
		const struct door_part *part = &door->parts[i];

		if (!(part->flags & DOOR_READS))
			continue;
		if (copy_from_user(part->in, from, part->length))
			return -EFAULT;
		from += part->length;
	}
	door->status = head.status;
	door->pending = false;
	complete(&door->answered);
	return 0;
}

static ssize_t door_write(struct file *file, const char __user *from, size_t size, loff_t *position)
{
	struct door *door = door_of(file);
	int ret;

	mutex_lock(&door->lock);
	ret = take_answer(door, from, size);
	mutex_unlock(&door->lock);
	return ret ? ret : size;
}

static const struct file_operations door_operations = {
	.owner = THIS_MODULE,
	.open = door_open,
	.release = door_release,
	.read = door_read,
	.write = door_write,
};

int door_transfer(struct door *door, const struct door_part *parts, int count)
{
	size_t bytes = 0;
	int i, status;

	for (i = 0; i < count; i++)
		bytes += parts[i].length;
	if (count > DOOR_MAX_PARTS || bytes > DOOR_MAX_BYTES)
		return -EOPNOTSUPP;

	mutex_lock(&door->lock);
	if (!door->open) {
		mutex_unlock(&door->lock);
		return -EREMOTEIO;
	}
	door->number++;
	door->parts = parts;
	door->count = count;
	door->status = -ETIMEDOUT;
	door->waiting = door->pending = true;
	reinit_completion(&door->answered);
	mutex_unlock(&door->lock);
	wake_up(&door->wake);
	/* Not interruptible, like the wait of a real bus's driver. */
	wait_for_completion_timeout(&door->answered, msecs_to_jiffies(timeout_ms));
	mutex_lock(&door->lock);
	door->waiting = door->pending = false;
	door->parts = NULL;
	door->count = 0;
	status = door->status;
	mutex_unlock(&door->lock);
	return status;
}

int door_add(struct door *door, const char *kind, int number)
{
	snprintf(door->name, sizeof(door->name), "simbus-%s%d", kind, number);
	mutex_init(&door->lock);
	init_waitqueue_head(&door->wake);
	init_completion(&door->answered);
	door->device = (struct miscdevice) {
		.minor = MISC_DYNAMIC_MINOR,
		.name = door->name,
		.fops = &door_operations,
	};
	return misc_register(&door->device);
}

void door_remove(struct door *door)
{
	misc_deregister(&door->device);
}

static int __init simbus_init(void)
{
	int ret = simbus_i2c_init();

	if (ret)
		return ret;
	ret = simbus_spi_init();
	if (ret)
		simbus_i2c_exit();
	return ret;
}

static void __exit simbus_exit(void)
{
	simbus_spi_exit();
	simbus_i2c_exit();
}

module_init(simbus_init);
module_exit(simbus_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("I2C and SPI buses whose chips are a program's");
