Feature: Validators' requests stay on one node, and news for all nodes reaches all
  An aggregate is known only to the node that was told of the committee before.

  Background:
    Given a primary consensus node lighthouse
    And a backup consensus node teku

  Scenario: While validators are there, all requests stay on one node until the epoch ends
    Given a block every 2000 ms
    And the proxy runs
    Then duties are done by lighthouse
    When lighthouse starts to sync
    Then calls go to teku
    And duties are done by teku
    When lighthouse is well again
    Then lighthouse is found up
    And duties and all other requests go home to lighthouse together
    When lighthouse goes down
    Then lighthouse is found down
    And calls go to teku
    And duties are done by teku

  Scenario: The node of the view is kept through a reload
    Given a block every 60000 ms
    And the proxy runs
    When lighthouse starts to sync
    Then calls go to teku
    And duties are done by teku
    When lighthouse is well again
    Then lighthouse is found up
    And duties are done by teku
    When the operator changes the settings and reloads:
      | calls.max_batch | 5 |
    Then the reload is applied
    And calls go to teku
    And duties stay with teku for 300 ms

  Scenario: A committee's subscription reaches all nodes, so that a failover loses no aggregate
    Given the proxy runs
    When a validator client subscribes to the committee of slot 31
    Then the client gets HTTP status 200
    And the validator client gets the aggregate of slot 31
    When lighthouse goes down
    Then calls go to teku
    And the validator client gets the aggregate of slot 31
    When lighthouse is well again
    Then lighthouse is found up
    When teku goes down
    Then calls go to lighthouse
    And the validator client gets the aggregate of slot 31

  Scenario Outline: All nodes that answer are told by <path>
    Given a backup consensus node nimbus
    And the proxy runs
    When nimbus starts to sync
    Then nimbus is found syncing
    When a validator client posts to <path>
    Then the client gets HTTP status 200
    And lighthouse has been told once of <path>, byte for byte
    And teku has been told once of <path>, byte for byte
    And nimbus has been told once of <path>, byte for byte

    Examples:
      | path                                           |
      | /eth/v1/validator/sync_committee_subscriptions |
      | /eth/v1/validator/prepare_beacon_proposer      |
      | /eth/v1/validator/register_validator           |

  Scenario: A node that was away is told again
    Given the proxy runs
    When a validator client posts to /eth/v1/validator/prepare_beacon_proposer
    Then the client gets HTTP status 200
    And teku has been told once of /eth/v1/validator/prepare_beacon_proposer, byte for byte
    When teku goes down
    Then teku is found down
    When teku is well again
    Then teku has been told once of /eth/v1/validator/prepare_beacon_proposer, byte for byte

  Scenario: The first good answer is the client's
    Given the proxy runs
    And lighthouse loses its answers to registrations
    When a validator client posts to /eth/v1/validator/register_validator
    Then the client gets HTTP status 200
    And teku has been told once of /eth/v1/validator/register_validator, byte for byte
