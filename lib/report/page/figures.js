/* Training, folds and scores. */
/* global report */
(() => {
  'use strict';

  const { data, make, number, section, save, choices, chart, PALETTE, plain } = report;

  function drawTraining() {
    if (data.training.length === 0) return;
    const element = section('training', 'Training', 'Solid: validation. Dashed: training. One colour a fold.');
    const metrics = [
      ['Loss', 'loss'],
      ['F1', 'f1'],
      ['Mean average precision', 'mAP'],
      ['Learning rate', 'lr'],
    ];
    const { bar, press } = choices(
      'What is drawn',
      metrics.map(([name]) => name),
      (i) => show(metrics[i]),
    );
    element.append(bar);
    const own = chart(element, 'training', 'Course of the training, a line a fold');
    function show([name, key]) {
      const series = data.training.flatMap(({ fold, stage, epochs }, k) => {
        const line = (part, values, type) => ({
          name: `fold ${fold}, ${stage}${part}`,
          type: 'line',
          data: values,
          showSymbol: values.length < 30,
          color: PALETTE[k % PALETTE.length],
          lineStyle: { type, width: 2 },
        });
        if (key === 'lr')
          return [
            line(
              '',
              epochs.map((e) => [e.epoch, e.lr]),
              'solid',
            ),
          ];
        return [
          line(
            ' validation',
            epochs.map((e) => [e.epoch, e.valid[key]]),
            'solid',
          ),
          line(
            ' training',
            epochs.map((e) => [e.epoch, e.train[key]]),
            'dashed',
          ),
        ];
      });
      own.show({
        tooltip: { trigger: 'axis' },
        legend: { type: 'scroll', top: 0 },
        grid: { left: 64, right: 20, top: 40, bottom: 46 },
        xAxis: plain('Epoch', { minInterval: 1, min: 1 }),
        yAxis: plain(name, { nameGap: 48, scale: true }),
        series,
      });
    }
    press(0);
  }

  function drawFolds() {
    if (!data.folds) return;
    const { sizes, counts } = data.folds;
    const element = section(
      'folds',
      'Folds',
      `Images of each class in each fold's validation part; ${sizes.join(', ')} images in all.`,
    );
    const own = chart(element, 'folds', 'Images of each class in each fold');
    own.show({
      tooltip: { trigger: 'axis', axisPointer: { type: 'shadow' } },
      legend: { top: 0 },
      grid: { left: 60, right: 20, top: 36, bottom: 130 },
      xAxis: { type: 'category', data: data.classes, axisLabel: { rotate: 50, width: 120, overflow: 'truncate' } },
      yAxis: plain('Images', { nameGap: 44 }),
      series: sizes.map((_, f) => ({
        name: `fold ${f + 1}`,
        type: 'bar',
        data: counts[f],
        color: PALETTE[f % PALETTE.length],
      })),
    });
  }

  function drawScores() {
    const { evaluation } = data;
    if (!evaluation) return;
    const { cells, imageLevel } = evaluation;
    const said = [];
    if (cells) said.push(`Mean average precision of cells ${number(cells.mAP)}.`);
    if (imageLevel) said.push(`Of images ${number(imageLevel.mAP)}; F1 of images at .5 ${number(imageLevel.f1)}.`);
    const element = section('scores', 'Scores', said.join(' '));
    const head = make('tr', {}, make('th', { scope: 'col', text: 'Class' }));
    const columns = [
      ...(cells
        ? [
            ['Cell AP', (c) => number(cells.ap[c])],
            ['True cells', (c) => String(cells.instances[c])],
          ]
        : []),
      ...(imageLevel ? [['Image AP', (c) => number(imageLevel.ap[c])]] : []),
    ];
    head.append(...columns.map(([name]) => make('th', { scope: 'col', text: name })));
    const rows = data.classes.map((name, c) =>
      make('tr', {}, make('th', { scope: 'row', text: name }), ...columns.map(([, of]) => make('td', { text: of(c) }))),
    );
    element.append(
      make('div', { class: 'scroll' }, make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows))),
    );
    if (!cells) return;
    const shown = data.classes
      .map((name, c) => ({ name, c }))
      .filter(({ c }) => cells.curves[c].recall.length > 0 && cells.instances[c] > 0);
    element.append(make('h3', { text: 'Precision and recall' }));
    const own = chart(element, 'precision-recall', 'Precision over recall, a line a class');
    own.show({
      tooltip: {
        trigger: 'item',
        formatter: (p) => `${p.seriesName}<br>recall ${number(p.value[0])}, precision ${number(p.value[1])}`,
      },
      legend: { type: 'scroll', top: 0 },
      grid: { left: 60, right: 20, top: 40, bottom: 46 },
      xAxis: plain('Recall', { min: 0, max: 1 }),
      yAxis: plain('Precision', { min: 0, max: 1, nameGap: 40 }),
      series: shown.map(({ name, c }, k) => ({
        name,
        type: 'line',
        showSymbol: false,
        color: PALETTE[k % PALETTE.length],
        data: cells.curves[c].recall.map((r, i) => [r, cells.curves[c].precision[i]]),
      })),
    });
    drawConfusion(element, cells.confusion);
  }

  /** The confusion as a picture: the table, drawn. */
  function confusionPicture(rows, columns, countOf, totalOf) {
    const [left, top, cell, scale] = [260, 210, 44, 2];
    const [width, height] = [left + cell * columns.length + 20, top + cell * rows.length + 20];
    const canvas = make('canvas', { width: scale * width, height: scale * height });
    const context = canvas.getContext('2d');
    context.scale(scale, scale);
    context.fillStyle = '#fff';
    context.fillRect(0, 0, width, height);
    context.font = '13px sans-serif';
    context.textBaseline = 'middle';
    columns.forEach(({ name }, k) => {
      context.save();
      context.translate(left + cell * (k + 0.5), top - 8);
      context.rotate(-Math.PI / 2);
      context.fillStyle = '#22262b';
      context.fillText(name, 0, 0);
      context.restore();
    });
    rows.forEach((row, i) => {
      context.fillStyle = '#22262b';
      context.textAlign = 'right';
      context.fillText(row.name, left - 8, top + cell * (i + 0.5));
      context.textAlign = 'center';
      columns.forEach((column, k) => {
        const n = countOf(row, column);
        const share = n / totalOf(row);
        context.fillStyle = `rgba(31, 95, 174, ${share})`;
        context.fillRect(left + cell * k + 1, top + cell * i + 1, cell - 2, cell - 2);
        context.fillStyle = share > 0.55 ? '#fff' : '#22262b';
        if (n > 0) context.fillText(String(n), left + cell * (k + 0.5), top + cell * (i + 0.5));
      });
    });
    return canvas.toDataURL('image/png');
  }

  function drawConfusion(parent, confusion) {
    const named = [...data.classes, 'no such cell'].map((name, c) => ({ name, c }));
    const rows = named.filter(({ c }) => confusion[c]?.some((n) => n > 0));
    if (rows.length === 0) return;
    const columns = named.filter(({ c }) => rows.some((row) => confusion[row.c][c] > 0));
    const countOf = (row, column) => confusion[row.c][column.c];
    const totalOf = (row) => confusion[row.c].reduce((sum, n) => sum + n, 0);
    const square = (row, column) => {
      const [n, total] = [countOf(row, column), totalOf(row)];
      const ink = n / total > 0.55 ? '#fff' : '#22262b';
      return make('td', {
        text: n === 0 ? '' : String(n),
        style: `background: rgba(31, 95, 174, ${(n / total).toFixed(3)}); color: ${ink}`,
        title: `${row.name} seen as ${column.name}: ${n} of ${total}`,
      });
    };
    const turned = ({ name }) => make('th', { scope: 'col', class: 'turned' }, make('span', { text: name }));
    const head = make('thead', {}, make('tr', {}, make('td'), ...columns.map(turned)));
    const line = (row) =>
      make('tr', {}, make('th', { scope: 'row', text: row.name }), ...columns.map((column) => square(row, column)));
    const caption = make('caption', {
      text: 'Rows: true class of a cell. Columns: the likeliest class of the cell that was found there.',
    });
    const table = make('table', { class: 'confusion' }, caption, head, make('tbody', {}, ...rows.map(line)));
    const png = make('button', {
      type: 'button',
      text: 'Save as PNG',
      on: { click: () => save('confusion.png', confusionPicture(rows, columns, countOf, totalOf)) },
    });
    parent.append(
      make('h3', { text: 'Confusion of locations' }),
      make('div', { class: 'scroll' }, table),
      make('div', { class: 'bar' }, png),
    );
  }

  Object.assign(report, { drawTraining, drawFolds, drawScores });
})();
