"""The hub: it takes in what every agent reports, keeps one true picture, plans the day and keeps the promises made."""
