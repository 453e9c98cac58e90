import { readFileSync } from 'node:fs';
import { parse, type Font, type PathCommand } from 'opentype.js';

export type Weight = 'normal' | 'bold';

export interface Lettering {
  text: string;
  /** Where the line starts, ends or has its middle, and its base line. */
  x: number;
  y: number;
  /** Font size, in the units of the drawing. */
  size: number;
  weight?: Weight;
  anchor?: 'start' | 'middle' | 'end';
  fill: string;
  transform?: string;
}

/** Half the height of a capital as a share of the font size: from the middle of a line down to its base line. */
const HALF_CAPITAL = 0.36;

const FILES: Record<Weight, string> = {
  normal: '@fontsource/lato/files/lato-latin-400-normal.woff',
  bold: '@fontsource/lato/files/lato-latin-700-normal.woff',
};
const fonts = new Map<Weight, Font>();

/** Text is drawn as outlines of a font that comes along: a machine without fonts would otherwise show none at all. */
function fontOf(weight: Weight): Font {
  const loaded = fonts.get(weight);
  if (loaded !== undefined) return loaded;
  const bytes = Uint8Array.from(readFileSync(require.resolve(FILES[weight])));
  const font = parse(bytes.buffer);
  fonts.set(weight, font);
  return font;
}

/** Width of a line of text, in the units of `size`. */
export function textWidth(text: string, size: number, weight: Weight = 'normal'): number {
  return fontOf(weight).getAdvanceWidth(text, size);
}

/** One step of an outline; numbers always with two decimals, since the library's own writing can run two of them together. */
function pathStep(step: PathCommand): string {
  const values = 'x1' in step ? [step.x1, step.y1] : [];
  if ('x2' in step) values.push(step.x2, step.y2);
  if ('x' in step) values.push(step.x, step.y);
  return step.type + values.map((value) => value.toFixed(2)).join(' ');
}

/** A line of text as an SVG path. */
export function letter({ text, x, y, size, weight = 'normal', anchor = 'start', fill, transform }: Lettering): string {
  const share = { start: 0, middle: 0.5, end: 1 }[anchor];
  const left = x - share * textWidth(text, size, weight);
  const outline = fontOf(weight).getPath(text, left, y, size).commands.map(pathStep).join('');
  const placed = transform === undefined ? '' : ` transform="${transform}"`;
  return `<path d="${outline}" fill="${fill}"${placed}/>`;
}

function unescapeXml(text: string): string {
  const characters: Record<string, string> = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&amp;': '&' };
  return text.replace(/&(lt|gt|quot|#39|amp);/g, (entity) => characters[entity] ?? entity);
}

function letterElement(attributes: string, content: string): string {
  const read = (name: string): string | undefined => new RegExp(`\\s${name}="([^"]*)"`).exec(attributes)?.[1];
  const style = read('style') ?? '';
  const size = Number(/font-size:([\d.]+)/.exec(style)?.[1] ?? 12);
  const central = read('dominant-baseline') === 'central' ? HALF_CAPITAL * size : 0;
  return letter({
    text: unescapeXml(content),
    x: Number(read('x') ?? 0),
    y: Number(read('y') ?? 0) + central,
    size,
    weight: style.includes('font-weight:bold') ? 'bold' : 'normal',
    anchor: (read('text-anchor') ?? 'start') as 'start' | 'middle' | 'end',
    fill: read('fill') ?? '#000',
    transform: read('transform'),
  });
}

/** Replaces every `<text>` of an SVG that a chart library wrote by outlines. */
export function outlineText(svg: string): string {
  return svg.replace(/<text(\s[^>]*)>([^<]*)<\/text>/g, (_, attributes: string, content: string) =>
    letterElement(attributes, content),
  );
}
