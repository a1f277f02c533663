// Runs before the page is drawn, so that a chosen theme does not flash. Everything else waits for the page.
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  try {
    const theme = localStorage.getItem("friction-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // storage may be switched off; then the system's theme holds
  }
})();
