"""The market side of a gateway: forecasts, fleets, metering, and the desks through which actors send their intents.

Application services: the CLI, the demo and a later API call them alike.
"""
