// Numbers as text.

/** "1 object", "2 objects". */
export function plural(number, noun, many = `${noun}s`) {
  return `${number} ${number === 1 ? noun : many}`;
}

/** Milliseconds: 0.4, 12.3, 145. */
export function ms(value) {
  return value < 100 ? value.toFixed(1) : value.toFixed(0);
}
