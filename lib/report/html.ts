import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { EpochRecord } from './curves';

/** A cell in a field of the report. */
export interface ReportCell {
  cellId: number;
  /** SVG path in pixels of the picture. */
  path: string;
  probabilities: number[];
  step1?: number[];
  step2?: number[];
}

export interface ReportField {
  id: string;
  /** One a channel: a grey picture (size, size) as a data URI. */
  channels: string[];
  cells: ReportCell[];
  /** Activation maps (classes, h, w), 0…255, as base64. */
  cams?: { h: number; w: number; data: string };
  /** Given labels of the field, as class indices. */
  labels?: number[];
}

/** A cell worth a look. */
export interface ListedCell {
  id: string;
  cellId: number;
  classId: number;
  p: number;
  /** The second likeliest class. */
  other?: number;
  q?: number;
  /** Of a disagreement: whether the class is a given label. */
  given?: boolean;
}

/** All that the page shows. NaN becomes null on the way. */
export interface ReportData {
  title: string;
  subtitle: string;
  classes: string[];
  /** Name and colour, 0…1 for red, green and blue. */
  channels: { name: string; tint: readonly number[] }[];
  /** Side of the pictures in pixels. */
  size: number;
  training: { fold: number; stage: string; epochs: EpochRecord[] }[];
  folds?: { sizes: number[]; counts: number[][] };
  evaluation?: unknown;
  fields: ReportField[];
  lists: { confident: ListedCell[]; doubtful: ListedCell[]; disagreements: ListedCell[] };
}

/** In the order in which they need each other. */
const SCRIPTS = ['base.js', 'figures.js', 'gallery.js', 'main.js'];

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

/** Nothing within may end the script element around it. */
function within(script: string): string {
  return script.replaceAll('</script', '<\\/script');
}

/** One HTML file that needs no other: style, charting library, page and data lie within. */
export function reportHtml(data: ReportData): string {
  const page = (name: string): string => readFileSync(join(__dirname, 'page', name), 'utf8');
  const library = readFileSync(require.resolve('echarts/dist/echarts.common.min.js'), 'utf8');
  const json = JSON.stringify(data).replaceAll('<', '\\u003c');
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<link rel="icon" href="data:,">',
    `<title>${escaped(data.title)}</title>`,
    `<style>\n${page('page.css')}</style>`,
    '</head>',
    '<body>',
    `<header><h1>${escaped(data.title)}</h1><p>${escaped(data.subtitle)}</p></header>`,
    '<nav aria-label="Sections"></nav>',
    '<main></main>',
    '<noscript><p>This report is drawn by a script, which is switched off.</p></noscript>',
    `<script type="application/json" id="data">${json}</script>`,
    `<script>${within(library)}</script>`,
    ...SCRIPTS.map((name) => `<script>\n${within(page(name))}</script>`),
    '</body>',
    '</html>',
    '',
  ].join('\n');
}
