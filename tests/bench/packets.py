"""As much of MQTT 3.1.1 as clients of the measurements need to write."""


def packet(first, body):
    """A packet: its first byte, and what follows the length."""
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(digits) + body


def text(value):
    """A text with its length before it."""
    return len(value).to_bytes(2, "big") + value
