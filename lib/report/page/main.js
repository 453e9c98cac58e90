/* global report */
report.drawScores();
report.drawGallery();
report.drawLists();
report.drawTraining();
report.drawFolds();
document.body.dataset.ready = 'true';
