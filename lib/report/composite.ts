import type { DatasetSpec } from '../data/dataset_spec';

type Rgb = [red: number, green: number, blue: number];

/** Colours of channels that are named by one; ER is held back, or it would hide what it surrounds. */
const COLORS: Record<string, Rgb> = { red: [1, 0, 0], green: [0, 1, 0], blue: [0.1, 0.25, 1], yellow: [0.3, 0.22, 0] };
const OTHERS: Rgb[] = [
  [1, 0, 0],
  [0, 1, 0],
  [0.1, 0.25, 1],
  [0.3, 0.3, 0.3],
];
/** A channel is brightened until this share of its pixels is white, but never more than `MOST_GAIN` times: noise stays dark. */
const WHITE_SHARE = 0.003;
const MOST_GAIN = 4;

/** The channel of interest: the first that shows neither nuclei nor cell bodies, else the first. */
export function proteinChannel({ channels, nucleusChannel, cellChannels }: DatasetSpec): number {
  const found = channels.findIndex(({ name }) => name !== nucleusChannel && !cellChannels.includes(name));
  return Math.max(0, found);
}

/** What brings a channel's brightest pixels to 1. */
function gainOf(field: Uint8Array, channel: number, channels: number): number {
  const pixels = field.length / channels;
  const histogram = new Uint32Array(256);
  for (let i = 0; i < pixels; i++) histogram[field[i * channels + channel]!]!++;
  let white = 255;
  for (let above = histogram[255]!; white > 1 && above < WHITE_SHARE * pixels; above += histogram[white]!) white--;
  return Math.min(MOST_GAIN, 255 / white) / 255;
}

/** One channel of (H, W, C) as floats in [0, 1], brightened for the eye as `like` would be. */
function stretched(field: Uint8Array, channel: number, channels: number, like = field): Float32Array {
  const pixels = field.length / channels;
  const gain = gainOf(like, channel, channels);
  return Float32Array.from({ length: pixels }, (_, i) => Math.min(1, gain * field[i * channels + channel]!));
}

/** One channel of (H, W, C), brightened for the eye by itself. @returns (H, W) */
export function brightened(field: Uint8Array, channel: number, channels: number): Uint8Array {
  return Uint8Array.from(stretched(field, channel, channels), (value) => Math.round(255 * value));
}

/** The colour of a channel by its name, else by its place: red, green, blue, 0 to 1. */
export function tintOf(name: string, place: number): Rgb {
  return COLORS[name] ?? OTHERS[place % OTHERS.length]!;
}

function toBytes(color: Float32Array): Uint8Array {
  return Uint8Array.from(color, (value) => Math.round(255 * Math.min(1, Math.max(0, value))));
}

/** All channels in their colours. @param like the field whose brightness is taken; default the field itself @returns (H, W, 3) */
export function compositeImage(field: Uint8Array, { channels }: DatasetSpec, like = field): Uint8Array {
  const color = new Float32Array((field.length / channels.length) * 3);
  channels.forEach(({ name }, c) => {
    const tint = tintOf(name, c);
    stretched(field, c, channels.length, like).forEach((value, i) => {
      for (let k = 0; k < 3; k++) color[3 * i + k]! += value * tint[k]!;
    });
  });
  return toBytes(color);
}

/** From dark red over orange to light yellow, 0 to 1. */
function heat(value: number): Rgb {
  return [Math.min(1, 0.35 + 1.3 * value), Math.min(1, 1.15 * value ** 1.5), Math.max(0, 1.6 * value - 1)];
}

/**
 * The protein in grey under the activation map in heat colours.
 * @param cam (H, W), 0 to 1; without it the protein alone
 * @returns (H, W, 3)
 */
export function heatImage(field: Uint8Array, spec: DatasetSpec, cam?: Float32Array): Uint8Array {
  const grey = stretched(field, proteinChannel(spec), spec.channels.length);
  const color = new Float32Array(grey.length * 3);
  grey.forEach((value, i) => {
    const level = Math.min(1, Math.max(0, cam?.[i] ?? 0));
    const [cover, tint] = [0.7 * Math.sqrt(level), heat(level)];
    for (let k = 0; k < 3; k++) color[3 * i + k] = 0.9 * value * (1 - cover) + tint[k]! * cover;
  });
  return toBytes(color);
}
