import sharp from 'sharp';
import { type DatasetSpec, HPA } from '../data/dataset_spec';
import { type NdArray, invalidArgument, requireNdArray, typedArrayKind } from '../options';
import { compositeImage, heatImage } from './composite';
import { letter, textWidth } from './lettering';
import { type CellOutline, cellOutlines, outlinePath } from '../cells/outlines';
import { fromSvg, writePicture } from './picture';

export interface CellCaption {
  cellId: number;
  /** Short lines, such as what was predicted and what is true. */
  lines: string[];
  /** Colours the outline: right green, wrong red, unknown white. */
  correct?: boolean;
}

export interface OverlayOptions {
  /** The field as it is dumped, (H, W, C). */
  channels: Uint8Array;
  size: [height: number, width: number];
  /** Numbered cells (H, W). */
  cells: NdArray<Uint16Array>;
  /** Activation map of the class that is shown, (H, W), 0 to 1. Absent: the protein alone. */
  cam?: Float32Array;
  captions: CellCaption[];
  title: string;
  /** Default HPA: its four channels. */
  spec?: DatasetSpec;
}

interface Panels {
  width: number;
  height: number;
  /** Pixels of the picture per pixel of the field. */
  scale: number;
}

/** Small fields are enlarged until they are this long, large ones made smaller until they are no longer than the second. */
const [SHORTEST, LONGEST] = [576, 1024];
const [MARGIN, HEAD, FOOT, FONT] = [16, 74, 34, 13];
const INK = { text: '#222222', faint: '#666666', right: '#4ade80', wrong: '#ff5d5d', unknown: '#ffffff' };

function panelsOf([height, width]: [number, number]): Panels {
  const side = Math.max(height, width);
  const scale = Math.min(Math.max(side, SHORTEST), LONGEST) / side;
  return { width: Math.round(width * scale), height: Math.round(height * scale), scale };
}

function inkOf(caption: CellCaption | undefined): string {
  if (caption?.correct === undefined) return INK.unknown;
  return caption.correct ? INK.right : INK.wrong;
}

function drawOutlines(outlines: CellOutline[], captions: Map<number, CellCaption>, scale: number): string {
  const path = (outline: CellOutline): string => {
    const [line, ink] = [outlinePath(outline, scale), inkOf(captions.get(outline.cellId))];
    // A dark line below keeps the light one visible on bright cells.
    return `<path d="${line}" stroke="#000" stroke-opacity=".55" stroke-width="3.6"/><path d="${line}" stroke="${ink}" stroke-width="1.6"/>`;
  };
  return `<g fill="none" stroke-linejoin="round">${outlines.map(path).join('')}</g>`;
}

/** Lines of text on a dark plate around (x, y), moved so that they stay within the panel. */
function drawPlate(lines: string[], ink: string, x: number, y: number, { width, height }: Panels): string {
  const [half, tall] = [Math.max(...lines.map((line) => textWidth(line, FONT))) / 2 + 5, lines.length * 16 + 5];
  const left = Math.min(Math.max(x - half, 2), Math.max(2, width - 2 * half - 2));
  const top = Math.min(Math.max(y - tall / 2, 2), Math.max(2, height - tall - 2));
  const plate = `<rect x="${left}" y="${top}" width="${2 * half}" height="${tall}" rx="4" fill="#000" fill-opacity=".62"/>`;
  const texts = lines.map((text, i) =>
    letter({ text, x: left + half, y: top + 15 + 16 * i, size: FONT, anchor: 'middle', fill: i === 0 ? ink : '#ddd' }),
  );
  return plate + texts.join('');
}

function drawCaptions(outlines: CellOutline[], captions: Map<number, CellCaption>, panels: Panels): string {
  const plates = outlines.map(({ cellId, centre: [x, y] }) => {
    const caption = captions.get(cellId);
    if (caption === undefined || caption.lines.length === 0) return '';
    return drawPlate(caption.lines, inkOf(caption), x * panels.scale, y * panels.scale, panels);
  });
  return plates.join('');
}

function drawFrame({ title, cam, spec = HPA }: OverlayOptions, { width, height }: Panels): string {
  const right = 2 * MARGIN + width;
  const names = spec.channels.map(({ name }) => name).join(', ');
  const say = (text: string, x: number, y: number, size: number, bold = false): string =>
    letter({ text, x, y, size, weight: bold ? 'bold' : 'normal', fill: bold ? INK.text : INK.faint });
  return [
    say(title, MARGIN, 32, 18, true),
    say(`Channels: ${names}`, MARGIN, HEAD - 10, FONT),
    say(cam ? 'Activation map over the protein' : 'Protein', right, HEAD - 10, FONT),
    say(
      'Outlines: green where the likeliest class is a true one, red where not, white not compared. The map is coarse: one of its pixels covers 32 of the field.',
      MARGIN,
      HEAD + height + 22,
      FONT,
    ),
  ].join('');
}

function drawLines(options: OverlayOptions, panels: Panels, width: number, height: number): string {
  const outlines = cellOutlines(options.cells);
  const captions = new Map(options.captions.map((caption) => [caption.cellId, caption]));
  const cells = drawOutlines(outlines, captions, panels.scale);
  const panel = (x: number, content: string): string =>
    `<svg x="${x}" y="${HEAD}" width="${panels.width}" height="${panels.height}">${content}</svg>`;
  const left = panel(MARGIN, cells);
  const right = panel(2 * MARGIN + panels.width, cells + drawCaptions(outlines, captions, panels));
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${drawFrame(options, panels)}${left}${right}</svg>`;
}

function panelImage(pixels: Uint8Array, [height, width]: [number, number], panels: Panels): Promise<Buffer> {
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .resize(panels.width, panels.height, { fit: 'fill', kernel: 'cubic' })
    .png()
    .toBuffer();
}

function requireOverlay({ channels, size: [height, width], cells, cam, spec = HPA }: OverlayOptions): void {
  requireNdArray(cells, 'cells', ['Uint16Array'], [height, width]);
  const values = height * width * spec.channels.length;
  if (typedArrayKind(channels) !== 'Uint8Array' || channels.length !== values) {
    throw invalidArgument(`a Uint8Array of ${values} values`, 'channels', channels);
  }
  if (cam !== undefined && (typedArrayKind(cam) !== 'Float32Array' || cam.length !== height * width)) {
    throw invalidArgument(`a Float32Array of ${height * width} values`, 'cam', cam);
  }
}

/**
 * Draws a field and what was predicted in it: to the left all channels in colour, to the right the activation map as heat
 * over the grey protein, in both the cells' outlines, and to the right their captions.
 * @param path the PNG; an older one is replaced in one step
 * @throws CellcamError ERR_INVALID_ARG, ERR_WRITE
 */
export async function writeOverlay(path: string, options: OverlayOptions): Promise<void> {
  requireOverlay(options);
  const { channels, size, cam, spec = HPA } = options;
  const panels = panelsOf(size);
  const [width, height] = [2 * panels.width + 3 * MARGIN, panels.height + HEAD + FOOT];
  const field = await panelImage(compositeImage(channels, spec), size, panels);
  const heat = await panelImage(heatImage(channels, spec, cam), size, panels);
  const lines = await fromSvg(drawLines(options, panels, width, height))
    .png()
    .toBuffer();
  const canvas = sharp({ create: { width, height, channels: 3, background: '#fff' } }).composite([
    { input: field, left: MARGIN, top: HEAD },
    { input: heat, left: 2 * MARGIN + panels.width, top: HEAD },
    { input: lines, left: 0, top: 0 },
  ]);
  await writePicture(path, canvas);
}
