import * as echarts from 'echarts';
import { outlineText, textWidth } from './lettering';
import { fromSvg, writePicture } from './picture';

/** Means over the images of an epoch. */
export interface EpochMetrics {
  /** ComboLoss, and its parts before they are weighted. */
  loss: number;
  full: number;
  tiled: number;
  l1: number;
  /** Samples-average F1 at .5, and mean average precision, from 0 to 1. */
  f1: number;
  mAP: number;
}

export interface EpochRecord {
  /** From 1. */
  epoch: number;
  lr: number;
  train: EpochMetrics;
  valid: EpochMetrics;
}

interface Panel {
  title: string;
  lines: { name: string; color: string; values: number[] }[];
  /** Fixed scale, for values that have one. */
  range?: [number, number];
  log?: boolean;
}

const [WIDTH, HEIGHT] = [1120, 760];
const SCALE = 2; // pixels per unit of the drawing
const [TRAIN, VALID, RATE] = ['#2a6fbb', '#d9622b', '#4d4d4d'];
const INK = { text: '#333333', faint: '#777777', axis: '#aaaaaa', grid: '#e8e8e8' };

function panelsOf(history: EpochRecord[]): Panel[] {
  const both = (key: keyof EpochMetrics): Panel['lines'] => [
    { name: 'Training', color: TRAIN, values: history.map((record) => record.train[key]) },
    { name: 'Validation', color: VALID, values: history.map((record) => record.valid[key]) },
  ];
  const rates = history.map((record) => record.lr);
  return [
    { title: 'Loss', lines: both('loss') },
    { title: 'F1 (samples average at .5)', lines: both('f1'), range: [0, 1] },
    { title: 'Mean average precision', lines: both('mAP'), range: [0, 1] },
    {
      title: 'Learning rate',
      lines: [{ name: 'Learning rate', color: RATE, values: rates }],
      log: rates.every((rate) => rate > 0),
    },
  ];
}

function frame(panel: number): { left: number; top: number; width: number; height: number } {
  const [column, row] = [panel % 2, Math.floor(panel / 2)];
  return { left: 70 + column * 550, top: 110 + row * 335, width: 470, height: 240 };
}

function tick(value: number): string {
  const rounded = Number(value.toPrecision(4));
  const text = rounded !== 0 && Math.abs(rounded) < 0.001 ? rounded.toExponential() : String(rounded);
  return text.replace('-', '\u2212');
}

function valueAxis({ range, log }: Panel, gridIndex: number): echarts.YAXisComponentOption {
  const look = {
    gridIndex,
    axisLabel: { color: INK.faint, formatter: tick },
    splitLine: { lineStyle: { color: INK.grid } },
  };
  if (log) return { ...look, type: 'log' };
  return { ...look, type: 'value', min: range?.[0], max: range?.[1] };
}

function epochAxis(gridIndex: number, history: EpochRecord[]): echarts.XAXisComponentOption {
  return {
    gridIndex,
    type: 'category',
    data: history.map((record) => String(record.epoch)),
    boundaryGap: history.length === 1,
    name: 'Epoch',
    nameLocation: 'middle',
    nameGap: 28,
    nameTextStyle: { color: INK.faint },
    axisLabel: { color: INK.faint },
    axisLine: { lineStyle: { color: INK.axis } },
    axisTick: { show: false },
  };
}

function seriesOf(panel: Panel, index: number, epochs: number): echarts.LineSeriesOption[] {
  return panel.lines.map(({ name, color, values }) => ({
    type: 'line',
    name,
    data: values,
    xAxisIndex: index,
    yAxisIndex: index,
    color,
    lineStyle: { width: 2 },
    symbol: 'circle',
    symbolSize: epochs === 1 ? 8 : 5,
    showSymbol: epochs <= 30,
  }));
}

function chartOption(history: EpochRecord[], title: string): echarts.EChartsOption {
  const panels = panelsOf(history);
  const heading = { text: title, left: 24, top: 20, textStyle: { fontSize: 20, color: INK.text } };
  const headings = panels.map(({ title: text }, i) => {
    const { left, top } = frame(i);
    return { text, left: left - 5, top: top - 38, textStyle: { fontSize: 15, color: INK.text } };
  });
  return {
    animation: false,
    backgroundColor: '#fff',
    title: [heading, ...headings],
    legend: { right: 24, top: 24, data: ['Training', 'Validation'], textStyle: { color: INK.text, fontSize: 13 } },
    grid: panels.map((_, i) => frame(i)),
    xAxis: panels.map((_, i) => epochAxis(i, history)),
    yAxis: panels.map((panel, i) => valueAxis(panel, i)),
    series: panels.flatMap((panel, i) => seriesOf(panel, i, history.length)),
  };
}

function drawChart(option: echarts.EChartsOption): string {
  echarts.setPlatformAPI({
    measureText: (text, font = '') => {
      const size = Number(/([\d.]+)px/.exec(font)?.[1] ?? 12);
      return { width: textWidth(text, size, font.includes('bold') ? 'bold' : 'normal') };
    },
  });
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT });
  try {
    chart.setOption(option);
    return chart.renderToSVGString();
  } finally {
    chart.dispose(); // an open chart keeps the process from ending
  }
}

/**
 * Draws the course of a training: loss, F1, mean average precision and learning rate over the epochs, 2240 by 1520 pixels.
 * @param path the PNG; an older one is replaced in one step
 * @param history at least one epoch, ascending, all values finite
 * @throws CellcamError ERR_WRITE
 */
export async function writeTrainingCurves(path: string, history: EpochRecord[], title: string): Promise<void> {
  await writePicture(path, fromSvg(outlineText(drawChart(chartOption(history, title))), SCALE));
}
