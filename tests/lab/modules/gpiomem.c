// SPDX-License-Identifier: GPL-2.0
/*
 * gpiomem: /dev/gpiomem, as Raspberry Pi OS has it, for a chip of gpio-sim that passes for the controller of the header.
 *
 * What is mapped is a page of memory with the registers of a BCM2835 ("BCM2835 ARM Peripherals", 6.1). Those of the
 * levels, GPLEV0 and GPLEV1, are the chip's lines themselves. The others keep what is written to them, and nothing comes
 * of it: no line is driven, and no resistor is connected. The module cannot be unloaded, because the chip uses the page.
 */
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "gpio-levels.h"

#define LABEL "pinctrl-bcm2835"
/* Bytes from the beginning to GPLEV0. */
#define LEVELS 0x34

static unsigned long page;

static int gpiomem_mmap(struct file *file, struct vm_area_struct *area)
{
	if (area->vm_pgoff || vma_pages(area) != 1)
		return -EINVAL;
	return vm_insert_page(area, area->vm_start, virt_to_page(page));
}

static int gpiomem_open(struct inode *inode, struct file *file)
{
	return gpio_levels_lie_at(LABEL, (unsigned long *)(page + LEVELS));
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = gpiomem_open,
	.mmap = gpiomem_mmap,
};

static struct miscdevice device = { .minor = MISC_DYNAMIC_MINOR, .name = "gpiomem", .fops = &operations };

static int __init gpiomem_init(void)
{
	int ret;

	page = get_zeroed_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	ret = misc_register(&device);
	if (ret)
		free_page(page);
	return ret;
}
module_init(gpiomem_init);

MODULE_DESCRIPTION("registers of a simulated GPIO controller");
MODULE_LICENSE("GPL");
