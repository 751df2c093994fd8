// SPDX-License-Identifier: GPL-2.0
/*
 * simbus: an SPI controller with two chip selects. Each part of a transfer is one of the message's, with the chip
 * select as its address; all parts write (zeros where nothing is given) and read.
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/spi/spi.h>

#include "door.h"

#define SELECTS 2

static int spi = -1;
module_param(spi, int, 0444);
MODULE_PARM_DESC(spi, "the number of the SPI controller; -1 for none");
/* spidev takes only devices that are named after one of its own list. */
static char *modalias[SELECTS] = { "spi-authenta", "spi-authenta" };
module_param_array(modalias, charp, NULL, 0444);
MODULE_PARM_DESC(modalias, "the driver of each chip select");

static struct platform_device *parent;
static struct spi_controller *controller;
static struct door door;

static int transfer_message(struct spi_controller *spi_controller, struct spi_message *message)
{
	struct door_part *parts;
	struct spi_transfer *transfer;
	u8 *buffer, *place;
	size_t bytes = 0;
	int count = 0, i = 0, ret = -ENOMEM;

	list_for_each_entry(transfer, &message->transfers, transfer_list) {
		bytes += transfer->len;
		count++;
	}
	parts = kcalloc(count, sizeof(*parts), GFP_KERNEL);
	buffer = kzalloc(2 * bytes, GFP_KERNEL);
	if (!parts || !buffer)
		goto done;
	place = buffer;
	list_for_each_entry(transfer, &message->transfers, transfer_list) {
		if (transfer->tx_buf)
			memcpy(place, transfer->tx_buf, transfer->len);
		parts[i++] = (struct door_part) {
			.address = message->spi->chip_select,
			.flags = DOOR_READS | DOOR_WRITES,
			.length = transfer->len,
			.out = place,
			.in = place + bytes,
		};
		place += transfer->len;
	}
	ret = door_transfer(&door, parts, count);
	i = 0;
	list_for_each_entry(transfer, &message->transfers, transfer_list) {
		if (!ret && transfer->rx_buf)
			memcpy(transfer->rx_buf, parts[i].in, transfer->len);
		i++;
	}
done:
	message->status = ret;
	message->actual_length = ret ? 0 : bytes;
	kfree(buffer);
	kfree(parts);
	spi_finalize_current_message(spi_controller);
	return 0;
}

static int add_devices(void)
{
	int select;

	for (select = 0; select < SELECTS; select++) {
		struct spi_board_info info = {
			.max_speed_hz = 10000000,
			.chip_select = select,
		};

		strscpy(info.modalias, modalias[select], sizeof(info.modalias));
		if (!spi_new_device(controller, &info))
			return -ENODEV;
	}
	return 0;
}

int simbus_spi_init(void)
{
	int ret;

	if (spi < 0)
		return 0;
	parent = platform_device_register_simple("simbus-spi", spi, NULL, 0);
	if (IS_ERR(parent))
		return PTR_ERR(parent);
	ret = door_add(&door, "spi", spi);
	if (ret)
		goto no_door;
	controller = spi_alloc_master(&parent->dev, 0);
	if (!controller) {
		ret = -ENOMEM;
		goto no_controller;
	}
	controller->bus_num = spi;
	controller->num_chipselect = SELECTS;
	controller->mode_bits = SPI_CPOL | SPI_CPHA | SPI_CS_HIGH | SPI_LSB_FIRST;
	controller->bits_per_word_mask = SPI_BPW_MASK(8);
	controller->max_speed_hz = 10000000;
	controller->transfer_one_message = transfer_message;
	ret = spi_register_controller(controller);
	if (ret) {
		spi_controller_put(controller);
		goto no_controller;
	}
	ret = add_devices();
	if (!ret)
		return 0;
	spi_unregister_controller(controller);
no_controller:
	door_remove(&door);
no_door:
	platform_device_unregister(parent);
	return ret;
}

void simbus_spi_exit(void)
{
	if (spi < 0)
		return;
	spi_unregister_controller(controller);
	door_remove(&door);
	platform_device_unregister(parent);
}
